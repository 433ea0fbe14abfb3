"""Virtual machines on QEMU, one process per guest, which outlives the agent."""
