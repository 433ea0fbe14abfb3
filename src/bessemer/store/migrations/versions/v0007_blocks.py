"""Which dependents hold up their owner's deletion in the foreground, and which of those deletions are under way."""

from bessemer.store.migrations.steps import Steps

revision = "0007"
down_revision = "0006"

# A text may hold \u0000, which is JSON, and which the server's functions of JSON refuse. A backslash that is escaped is
# written otherwise first, lest what stands behind it be taken for that.
_CASCADES = """CREATE TABLE {there}cascades (
    uid {text} NOT NULL,
    upto {text} NOT NULL,
    writer {text} NOT NULL,
    PRIMARY KEY (uid)
)
{end}
"""
# A writer of 0006 that changes whether an object blocks its owner says nothing of it here: what was filled in is no
# longer known then. Bodies have no blanks. What stands as the trigger is made was filled in by a release that had none:
# whoever writes waits meanwhile, so no change is missed.
_SAYS = """position('"blockOwnerDeletion":true'::bytea IN {}.body) > 0"""
_GUARD = (
    """CREATE OR REPLACE FUNCTION forget_blocks() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT value FROM counters WHERE name = 'carries') < 7 THEN
        UPDATE dependents SET blocks = 2 WHERE uid = NEW.uid AND blocks <> 2;
    END IF;
    RETURN NULL;
END $$""",
    f"""DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'objects_blocks' AND tgrelid = 'objects'::regclass) THEN
        CREATE TRIGGER objects_blocks AFTER UPDATE ON objects FOR EACH ROW
            WHEN ({_SAYS.format("OLD")} OR {_SAYS.format("NEW")}) EXECUTE FUNCTION forget_blocks();
        UPDATE dependents SET blocks = 2 WHERE blocks <> 2;
    END IF;
END $$""",
)
_FILE = {"there": "", "text": "TEXT", "end": "\n WITHOUT ROWID"}
_SERVER = {"there": "IF NOT EXISTS ", "text": 'TEXT COLLATE "C"', "end": ""}

SQLITE = Steps(
    expand=(
        "DROP INDEX dependents_uid",
        "ALTER TABLE dependents RENAME TO dependents_0006",
        """CREATE TABLE dependents (
    owner TEXT NOT NULL,
    uid TEXT NOT NULL,
    blocks INTEGER DEFAULT 2 NOT NULL,
    PRIMARY KEY (owner, uid)
)
 WITHOUT ROWID
""",
        "INSERT INTO dependents SELECT owner, uid, 2 FROM dependents_0006",
        "DROP TABLE dependents_0006",
        "CREATE INDEX dependents_uid ON dependents (uid)",
        "CREATE INDEX dependents_blocks ON dependents (owner) WHERE blocks > 0",
        _CASCADES.format(**_FILE),
    ),
    migrate=(
        """UPDATE dependents SET blocks = EXISTS (
    SELECT 1 FROM objects, json_each(CAST(objects.body AS TEXT), '$.metadata.ownerReferences') AS reference
    WHERE objects.uid = dependents.uid AND objects.kind <> 'Event'
    AND json_extract(reference.value, '$.uid') = dependents.owner
    AND json_extract(reference.value, '$.blockOwnerDeletion') = 1
) WHERE blocks = 2""",
    ),
)
POSTGRESQL = Steps(
    expand=(
        "ALTER TABLE dependents ADD COLUMN IF NOT EXISTS blocks BIGINT DEFAULT 2 NOT NULL",
        _CASCADES.format(**_SERVER),
        "DROP INDEX CONCURRENTLY IF EXISTS dependents_blocks",  # one that was stopped amid its making is of no use
        "CREATE INDEX CONCURRENTLY dependents_blocks ON dependents (owner) WHERE blocks > 0",
    ),
    guard=_GUARD,
    migrate=(
        """UPDATE dependents SET blocks = CASE WHEN EXISTS (
    SELECT FROM objects, json_array_elements(
        replace(replace(convert_from(objects.body, 'UTF8'), '\\\\', '\\u005c'), '\\u0000', '')::json
        #> '{metadata,ownerReferences}'
    ) AS reference
    WHERE objects.uid = dependents.uid AND objects.kind <> 'Event' AND reference ->> 'uid' = dependents.owner
    AND reference ->> 'blockOwnerDeletion' = 'true'
) THEN 1 ELSE 0 END
WHERE (owner, uid) IN (SELECT owner, uid FROM dependents WHERE blocks = 2 LIMIT 200)""",
    ),
)
