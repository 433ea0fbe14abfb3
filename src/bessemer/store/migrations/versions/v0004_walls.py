"""What tenants may, as rows, and what gateways hold within a window."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    lite = op.get_bind().dialect.name == "sqlite"
    text, whole = ("TEXT", "INTEGER") if lite else ('TEXT COLLATE "C"', "BIGINT")
    end = "\n WITHOUT ROWID" if lite else ""
    op.execute(f"""CREATE TABLE walls (
    what {text} NOT NULL,
    value {text} NOT NULL,
    tenant {text} NOT NULL,
    PRIMARY KEY (what, value, tenant)
)
{end}
""")
    op.execute("CREATE INDEX walls_tenant ON walls (tenant, what)")
    op.execute(f"""CREATE TABLE windows (
    scope {text} NOT NULL,
    meter {text} NOT NULL,
    start {whole} NOT NULL,
    used {whole} NOT NULL,
    PRIMARY KEY (scope, meter),
    CHECK (used >= 0)
)
{end}
""")
