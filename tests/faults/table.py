"""What may go wrong, what it looks like, how it mends, and the tests that prove it: the source of ``docs/faults.md``.

``python -m tests.faults.table > docs/faults.md`` writes the page; a test fails where page and list differ.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

REAL = "tests/faults/test_real.py::"
HOSTS = "tests/faults/test_hosts.py::"
INSTANCE = "tests/kinds/compute/test_instance.py::"
GUEST = "tests/kinds/compute/test_instance_host.py::"
ENDPOINT = "tests/kinds/inference/test_endpoint.py::"
ENGINE = "tests/kinds/inference/test_endpoint_host.py::"
FAILOVER = "tests/failover/test_failover.py::"
LINKS = "tests/store/test_links.py::"
DAY = "tests/sim/test_day.py::test_a_day"


@dataclass(frozen=True)
class Fault:
    """One kind of bad luck or bad input. ``tests`` are node ids, the plainest first."""

    fault: str
    shows_as: str
    recovers: str
    tests: tuple[str, ...]


FAULTS: tuple[Fault, ...] = (
    Fault(
        "kill -9 of the control plane, in each phase of an Instance and an Endpoint",
        "guests and streams go on; what waits says what for",
        "by itself: the supervisor restarts it, and it reads the world from the store alone",
        (
            REAL + "test_kill_9_of_the_control_plane_cuts_no_stream_and_touches_no_guest",
            "tests/faults/test_matrix.py::test_killed_in_any_phase_it_converges",
            "tests/test_crash.py::test_converges_after_a_stop_in_each_phase",
            "tests/test_crash.py::test_converges_after_some_stops",
            "tests/test_crash.py::test_converges_after_a_stop_at_every_driver_call_and_every_commit",
            "tests/store/test_crash.py::test_acknowledged_writes_survive_kill_9",
            DAY,
        ),
    ),
    Fault(
        "the control plane is away for longer than a host's lease, or its clock has moved when it is back",
        "no host: silence that nobody could hear is none, and nothing of a host to be fenced is given away",
        "by itself: hosts that were heard have their lease's whole time to be heard again",
        (
            "tests/kinds/fleet/test_host.py::"
            "test_an_outage_of_the_control_plane_gives_nothing_away_and_says_nothing_of_a_host",
            "tests/store/test_leases.py::test_silence_while_the_store_was_away_is_no_silence",
            "tests/store/test_leases.py::test_an_opening_hears_nobody_anew_of_whom_another_process_knows",
            "tests/store/test_leases.py::test_a_clock_set_back_while_the_store_was_closed",
        ),
    ),
    Fault(
        "one of several controllers is held up past its leases, and wakes amid its work",
        "another has taken over; what the late one began is dropped, and what it wanted to write is refused",
        "by itself: one lease per kind, a fence that grows, and writes that name what they were made out of",
        (
            "tests/sim/test_day.py::test_a_morning_of_rivals",
            "tests/sim/test_day.py::test_days_of_rivals",
            "tests/loop/test_loop.py::test_of_two_loops_one_works_and_the_other_takes_over",
            "tests/loop/test_loop.py::test_work_that_outlives_its_lease_is_dropped",
            "tests/loop/test_loop.py::test_who_takes_over_again_does_not_measure_from_the_first_time",
            "tests/store/test_capacity.py::test_a_word_for_an_earlier_claim_of_the_name_changes_nothing",
            "tests/store/test_capacity.py::test_rows_are_not_made_out_of_what_has_changed_since",
            "tests/store/test_leases.py::test_what_is_written_under_a_lease_that_another_has_had_since_is_refused",
            "tests/store/test_leases.py::test_release_frees_and_the_fence_grows",
        ),
    ),
    Fault(
        "of several replicas over PostgreSQL one is stopped past its leases, killed, or cut off from the database",
        "another has its kinds; what the late one sends is refused; nothing acknowledged is lost, nothing is doubled",
        "by itself, within seconds: the balancer takes it out, and it comes back as it is",
        (
            FAILOVER + "test_one_of_each",
            FAILOVER + "test_many_of_each",
            FAILOVER + "test_a_controller_that_is_told_to_end_lets_go_at_once",
            FAILOVER + "test_a_log_is_read_through_either",
            LINKS + "test_nobody_waits_for_ever_on_a_wire_that_is_cut",
            LINKS + "test_leases_go_by_the_databases_clock",
        ),
    ),
    Fault(
        "the wire of hosts, of the gateway or of another replica to the api is cut, and nobody says so",
        "what runs goes on; the gateway serves whom it knows; a log that another replica holds does not come",
        "by itself, once it is mended: who is not heard is given up, and dialled anew; usage is counted once",
        (
            "tests/failover/test_cuts.py::test_every_wire_is_cut",
            FAILOVER + "test_one_of_each",
            "tests/client/test_sockets.py::test_a_socket_whose_wire_is_cut_ends_all_that_was_dialled",
            "tests/gateway/test_pulse.py::test_who_is_silent_loses_them_again_and_again",
            "tests/api/test_relayed.py::test_a_socket_that_its_host_has_left_is_not_asked",
        ),
    ),
    Fault(
        "PostgreSQL restarts or crashes",
        "`Unavailable` while it is away; watches go on where they stood",
        "by itself: connections are made anew; a commit whose answer was lost is looked for",
        (
            "tests/store/test_postgres.py::test_a_restart_of_the_server_loses_nothing_that_was_acknowledged",
            "tests/store/test_postgres.py::test_of_a_commit_whose_answer_was_lost_the_server_is_asked",
            LINKS + "test_another_transaction_is_not_taken_for_one_that_a_crash_undid",
            FAILOVER + "test_one_of_each",
        ),
    ),
    Fault(
        "PostgreSQL goes back: a replica that lagged takes over, or a copy is brought back",
        "every watch ends as 410, and the log says so",
        "by itself: who watches lists again; what was acknowledged since then is lost with the database",
        (
            LINKS + "test_a_database_that_went_back_ends_watches",
            LINKS + "test_what_we_wrote_ourselves_first_hides_no_step_back",
        ),
    ),
    Fault(
        "a replica is started with another authority, key or content than the installation's",
        "it does not start, and says what to copy",
        "once that is copied",
        ("tests/failover/test_joining.py::test_a_replica_with_something_else_is_refused_and_told_what_to_copy",),
    ),
    Fault(
        "kill -9 of the gateway, in each phase",
        "requests in flight end; new ones wait for the restart",
        "by itself: what was answered is settled from its spool, once",
        (
            REAL + "test_kill_9_of_the_gateway_loses_no_usage_that_was_answered",
            "tests/faults/test_matrix.py::test_killed_in_any_phase_it_converges",
            "tests/test_crash.py::test_a_gateway_killed_in_each_phase_knows_what_one_knows_that_lives",
            "tests/gateway/test_spool.py::test_two_gateways_do_not_write_to_one_spool",
            "tests/gateway/test_spool.py::test_behind_a_torn_record_nothing_is_written",
            "tests/store/test_ledger.py::test_records_are_settled_once_however_they_arrive",
            DAY,
        ),
    ),
    Fault(
        "kill -9 of the agent, in each phase",
        "what runs goes on",
        "by itself: it adopts what runs (same pid, same start) and takes away what nobody wants",
        (
            REAL + "test_kill_9_of_agent_and_supervisor_then_up_adopts_all_that_runs",
            "tests/faults/test_matrix.py::test_killed_in_any_phase_it_converges",
            "tests/agent/test_real.py::test_a_guest_is_adopted_after_kill_9",
            "tests/test_crash.py::test_converges_after_a_stop_in_each_phase",
            "tests/agent/test_agent.py::test_adopts_what_runs_after_kill_9",
            "tests/agent/test_releases.py::test_a_guest_of_every_release_is_adopted",
            "tests/agent/test_agent.py::test_orphans_are_removed_once_the_api_has_said_what_there_is",
            "tests/drivers/qemu/test_real.py::test_an_agent_may_be_killed_at_any_moment_of_a_start",
            "tests/drivers/process/test_isolation.py::test_an_agent_that_dies_while_starting_leaves_one_process",
        ),
    ),
    Fault(
        "kill -9 of the supervisor, or of everything at once",
        "guests and engines go on",
        "the next `up` adopts what runs; `down` ends what runs, and leaves nothing",
        (
            REAL + "test_kill_9_of_agent_and_supervisor_then_up_adopts_all_that_runs",
            REAL + "test_down_after_kill_9_of_everything_leaves_nothing_and_up_works_again",
            "tests/main/test_supervisor.py::test_starts_what_is_not_there_and_adopts_what_is",
            "tests/main/test_supervisor.py::test_restarts_what_died_after_half_a_second_then_waits_longer_each_time",
        ),
    ),
    Fault(
        "kill -9 of QEMU or of an engine",
        "phase `Lost` with `GuestDied`, or what ended the engine; the gap is a ledger segment of state `lost`",
        "by itself, as the restart policy says, with backoff",
        (
            REAL + "test_kill_9_of_qemu_and_engine_restarts_them_and_the_gap_is_lost_time",
            INSTANCE + "test_a_killed_guest_is_restarted_and_the_gap_is_lost_time",
            GUEST + "test_a_guest_that_dies_is_lost_until_it_runs_again",
            GUEST + "test_never_restart_means_never",
            ENGINE + "test_a_killed_engine_is_lost_until_it_answers_again",
            ENDPOINT + "test_losing_one_of_two_degrades_it_until_it_is_back",
            "tests/drivers/qemu/test_contract.py::test_a_killed_guest_is_seen_and_starts_anew",
        ),
    ),
    Fault(
        "the api is away",
        "guests and streams go on; the agent keeps what it has to say",
        "by itself: each last word is said once",
        (
            "tests/agent/test_real.py::test_guest_and_stream_go_on_without_the_api",
            "tests/agent/test_agent.py::test_six_hours_without_the_api",
            "tests/agent/test_agent.py::test_a_guest_that_dies_while_the_api_is_away_is_told_of_once",
            "tests/gateway/test_spool.py::test_it_is_settled_when_the_api_is_back",
        ),
    ),
    Fault(
        "a host is silent: its agent killed, it is cut off, or the machine is gone",
        "Host `Reachable=False`, workloads `Unknown`; nothing is placed there, nothing released, no ledger row changes",
        "agent back: adopted; fenced: released and placed anew",
        (
            REAL + "test_a_silent_host_is_said_to_be_and_what_runs_there_goes_on",
            HOSTS + "test_nothing_is_placed_on_a_silent_host_and_nothing_there_is_given_away",
            INSTANCE + "test_a_silent_host_makes_it_unknown_and_nothing_is_given_away",
            INSTANCE + "test_on_a_fenced_host_it_is_placed_anew_elsewhere",
            ENDPOINT + "test_a_silent_host_makes_it_unknown_or_degraded",
            ENDPOINT + "test_replicas_of_a_fenced_host_are_placed_anew",
            "tests/kinds/fleet/test_host.py::test_a_host_that_falls_silent_keeps_what_it_holds_until_it_is_back",
            "tests/kinds/fleet/test_host.py::test_fencing_gives_claims_away_once_the_agent_is_silent_and_never_before",
            "tests/agent/test_agent.py::test_released_while_away_is_taken_away_and_not_told",
            DAY,
        ),
    ),
    Fault(
        "an Instance is deleted while its host is silent",
        "`Terminating` with `HostSilent`; its devices are not given away",
        "agent back: cleared away; fenced: released",
        (
            INSTANCE + "test_deleted_while_its_host_is_silent_it_waits_for_the_host",
            INSTANCE + "test_deleted_while_its_host_is_silent_it_goes_when_the_host_is_fenced",
            "tests/agent/test_api.py::test_host_silent_then_back",
        ),
    ),
    Fault(
        "a guest is silent, reports wrong values, 10 MB, invalid UTF-8, or another's nonce",
        "`GuestSilent`, `GuestMismatch`, `ReportInvalid`",
        "ended and booted anew, three times; then given up: its place is given back, and nothing was billed",
        (
            GUEST + "test_a_guest_that_never_reports_well_is_ended_and_given_up",
            INSTANCE + "test_a_guest_that_never_reports_well_holds_nothing_and_costs_nothing",
            INSTANCE + "test_what_was_given_up_is_placed_anew_when_it_is_asked_for_again",
            GUEST + "test_what_has_run_once_keeps_its_disk_when_it_does_not_come_up_any_more",
            GUEST + "test_hostile_reports_are_invalid",
            GUEST + "test_no_bytes_make_it_raise",
            GUEST + "test_a_silent_guest_leaves_nothing",
            INSTANCE + "test_trouble_is_shown_and_leaves_nothing",
            "tests/drivers/qemu/test_real.py::test_a_hostile_guest_fills_nothing",
        ),
    ),
    Fault(
        "the disk is full while a disk is created, intent is written, usage is spooled, or the store commits",
        "`DiskFull` at the object; the gateway refuses rather than lose; a write is Unavailable",
        "when there is space again",
        (
            GUEST + "test_a_full_disk_waits_for_space",
            "tests/drivers/disks/test_real.py::test_a_full_disk_refuses_and_recovers",
            "tests/drivers/fetch/test_disk.py::test_a_full_disk_is_said_and_given_back",
            "tests/agent/test_agent.py::test_a_full_disk_is_told_of_and_waited_out",
            "tests/agent/test_intent.py::test_a_full_disk_keeps_a_claim_from_beginning_and_says_so",
            "tests/agent/test_intent.py::test_a_full_disk_does_not_keep_an_end_from_coming",
            "tests/agent/test_intentfile.py::test_a_disk_that_refuses_leaves_the_old_file",
            "tests/gateway/test_spool.py::test_a_full_disk_is_said_before_anything_is_served",
            "tests/gateway/test_openai.py::test_it_serves_nothing_that_it_cannot_record",
            "tests/store/test_crash.py::test_a_full_disk_refuses_and_recovers",
        ),
    ),
    Fault(
        "a model or image file is corrupted, cut short or replaced on disk",
        "`DigestMismatch`",
        "by itself: fetched anew",
        (
            REAL + "test_an_image_cut_short_and_a_model_replaced_on_disk_are_fetched_anew",
            GUEST + "test_a_corrupted_image_is_fetched_anew",
            "tests/agent/test_content.py::test_a_broken_file_is_told_of_and_fetched_anew",
            "tests/drivers/fetch/test_contract.py::test_a_changed_file_is_found_and_fetched_anew",
            "tests/drivers/fetch/test_disk.py::test_what_was_changed_on_disk_is_found",
            "tests/drivers/qemu/test_real.py::test_an_image_that_was_touched_is_not_booted",
        ),
    ),
    Fault(
        "an image's or model's content vanishes from the control plane",
        "the Image is `Importing` again, and so is the Model",
        "by itself: built or fetched anew",
        (
            "tests/kinds/fleet/test_image.py::test_content_that_vanished_is_made_again",
            "tests/kinds/inference/test_model.py::test_content_that_vanished_is_fetched_again_and_its_size_is_known",
        ),
    ),
    Fault(
        "a port or door is taken",
        "`PortTaken`; `up` names the port and the flag that helps",
        "by retry with backoff; `up` passes over taken ports at the first start",
        (
            ENGINE + "test_a_taken_door_is_waited_for",
            "tests/drivers/engine/test_contract.py::test_a_taken_door_is_told",
            "tests/drivers/engine/test_doorway.py::test_a_taken_port_is_told",
            "tests/main/test_settings.py::test_a_taken_port_is_refused_with_the_flag_that_helps",
        ),
    ),
    Fault(
        "an engine starts and answers nonsense, never answers, or falls silent once it has run",
        "`ProbeFailed`, or `EngineSilent` where no answer comes; one that has run is `Lost` after 30 s of it",
        "by retry with backoff",
        (
            ENGINE + "test_an_engine_that_answers_nonsense_is_started_anew",
            ENGINE + "test_an_engine_that_loads_and_does_nothing_is_started_anew",
            ENGINE + "test_an_engine_whose_door_stays_silent_is_lost_and_started_anew",
            ENGINE + "test_a_door_that_answers_again_in_time_is_forgiven_at_once",
            "tests/drivers/engine/test_hostile.py::test_nonsense_is_told",
        ),
    ),
    Fault(
        "an engine runs out of memory",
        "`OutOfMemory` with what was asked and had",
        "by retry with backoff; a larger flavor helps",
        (
            ENGINE + "test_want_of_memory_says_what_was_asked_and_had",
            "tests/kinds/inference/test_endpoint_real.py::"
            "test_an_engine_without_the_memory_it_needs_says_what_was_asked_and_had",
            "tests/drivers/process/test_contract.py::test_past_its_memory_it_is_out_of_memory",
        ),
    ),
    Fault(
        "the clock jumps a day ahead or back",
        "nothing: no interval negative or doubled, no lease lost, nobody stuck",
        "–",
        (
            INSTANCE + "test_a_clock_that_jumps_a_day_doubles_no_time",
            "tests/store/test_capacity.py::test_clock_jumps_never_turn_an_interval_around",
            "tests/store/test_leases.py::test_a_wall_clock_that_jumps_moves_no_lease",
            "tests/kinds/fleet/test_host.py::test_a_jump_of_the_clock_loses_no_host",
            "tests/loop/test_loop.py::test_a_jump_of_the_wall_clock_makes_nobody_stuck",
            GUEST + "test_a_clock_that_jumps_back_holds_up_no_restart",
            DAY,
        ),
    ),
    Fault(
        "a quota is lowered below use; a flavor, image or model is deleted while used",
        "it is stated; what runs is not touched, what is new waits",
        "when use is below the quota again",
        (
            "tests/kinds/tenancy/test_tenant.py::test_a_quota_below_use_stops_what_is_new_and_touches_nothing",
            "tests/store/test_capacity.py::test_a_quota_below_use_is_stated_and_touches_nothing",
            INSTANCE + "test_flavor_and_image_may_go_while_it_runs",
            ENDPOINT + "test_model_and_flavor_may_go_while_it_serves",
            DAY,
        ),
    ),
    Fault(
        "hostile names, 5 MB objects, JSON 10,000 deep, YAML bombs, unicode tricks, huge labels",
        "400, 413 or 422 by field, in bounded memory",
        "–",
        (
            "tests/api/test_hostile.py::test_hostile_names",
            "tests/api/test_hostile.py::test_a_body_that_says_it_is_huge_is_not_read",
            "tests/api/test_hostile.py::test_bombs",
            "tests/api/test_hostile.py::test_what_nests_too_deep_hears_how_deep_it_may",
            "tests/api/test_hostile.py::test_text_that_is_not_what_it_shows",
            "tests/api/test_hostile.py::test_labels_pile_up_to_their_bound_and_no_further",
            "tests/store/test_objects.py::test_a_body_nested_10000_deep_is_malformed",
        ),
    ),
)

_HEAD = """\
# Faults

What bad luck and bad input look like, how it mends, and the tests that hold it. This page is made by
`python -m tests.faults.table > docs/faults.md`; a test fails where it differs from the list there, and where a test
that is named here does not exist.

The first test of a row is the one to read. Those in `tests/faults/test_real.py` break real parts: `bessemer up` with a
real guest and a real engine. A simulated day (`tests/sim`) mixes them all over two hundred hosts, and holds after each
step that no device is in two Claims, that quotas are not passed, that ledger intervals are whole, and that nobody waits
past a deadline without saying so; for a Claim whose host is silent, the workload that holds it says so.
"""


def page() -> str:
    """The whole page."""
    rows = [
        f"| {fault.fault} | {fault.shows_as} | {fault.recovers} | {'<br>'.join(f'`{test}`' for test in fault.tests)} |"
        for fault in FAULTS
    ]
    return "\n".join([_HEAD, "| fault | shows as | recovers | proven by |", "|---|---|---|---|", *rows, ""])


if __name__ == "__main__":
    sys.stdout.write(page())
