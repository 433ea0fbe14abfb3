"""What a database still carries: the oldest schema whose writers are admitted, and a trigger that refuses all others.

A writer says what it is in its row of ``leases``, at each commit. Releases before this one say nothing there: they are
taken for 0004, whatever they are. What is marked as met from now on, whichever way it is counted, they have counted.
"""

from bessemer.store.migrations.steps import Steps

revision = "0005"
down_revision = "0004"

_MET = (
    "INSERT INTO counters VALUES ('meter/devices', 1), ('meter/tokens_per_minute', 1), ('meter/spend_micro', 1) "
    "ON CONFLICT DO NOTHING"
)
SQLITE = Steps(expand=("INSERT INTO counters VALUES ('carries', 5)", _MET))
POSTGRESQL = Steps(
    expand=(
        "INSERT INTO counters VALUES ('carries', 4) ON CONFLICT DO NOTHING",
        _MET,
        """CREATE OR REPLACE FUNCTION refuse_older() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF EXISTS (
        SELECT FROM counters
        WHERE (name = 'carries' AND value > coalesce(nullif(split_part(NEW.note, ' ', 1), '')::BIGINT, 4))
        OR (name LIKE 'meter/%' AND value > 0 AND NEW.note <> '' AND position(substr(name, 6) || '/' IN NEW.note) = 0)
    ) THEN
        RAISE EXCEPTION 'the database no longer carries writers like this: %', NEW.note USING ERRCODE = 'BE001';
    END IF;
    RETURN NEW;
END $$""",
        "DROP TRIGGER IF EXISTS leases_older ON leases; "
        "CREATE TRIGGER leases_older BEFORE INSERT ON leases FOR EACH ROW WHEN (NEW.name LIKE 'writer/%') "
        "EXECUTE FUNCTION refuse_older()",
    )
)
