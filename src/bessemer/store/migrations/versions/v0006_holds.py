"""What gateways hold of money, and up to where the ledger was looked at; a tenant's projects by its ledger."""

from alembic import op

revision = "0006"
down_revision = "0004"


def upgrade() -> None:
    lite = op.get_bind().dialect.name == "sqlite"
    text, whole = ("TEXT", "INTEGER") if lite else ('TEXT COLLATE "C"', "BIGINT")
    end = "\n WITHOUT ROWID" if lite else ""
    op.execute(f"""CREATE TABLE looks (
    scope {text} NOT NULL,
    upto {whole} NOT NULL,
    PRIMARY KEY (scope)
)
{end}
""")
    op.execute(f"""CREATE TABLE holds (
    project {text} NOT NULL,
    holder {text} NOT NULL,
    tenant {text} NOT NULL,
    micro {whole} NOT NULL,
    number {whole} NOT NULL,
    until {whole} NOT NULL,
    PRIMARY KEY (project, holder),
    CHECK (micro >= 0)
)
{end}
""")
    op.execute("CREATE INDEX holds_tenant ON holds (tenant)")
    op.execute("CREATE INDEX ledger_tenant ON ledger (tenant_uid, project_uid)")
