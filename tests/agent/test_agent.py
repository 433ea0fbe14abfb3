"""An agent as a whole, on the fake drivers and a stand-in for the api."""

from __future__ import annotations

import errno
import os

import pytest

from bessemer.agent import streams
from bessemer.agent.identity import Identity
from bessemer.core.errors import Unauthenticated
from tests.agent.conftest import Bench
from tests.agent.standin import HOST, claim, replica


def phase(bench: Bench, body: dict[str, object]) -> str:
    return str(bench.api.status(body).get("phase", ""))


async def running(bench: Bench) -> dict[str, object]:
    """A guest that runs, and the api knows it."""
    body = bench.api.put(claim())
    await bench.expect(lambda: phase(bench, body) == "Running")
    return body


async def test_joins_once_reports_its_machine_and_lives(bench: Bench) -> None:
    bench.start()
    await bench.expect(lambda: bench.api.objects[f"/apis/bessemer.dev/v1alpha1/hosts/{HOST}"]["status"])
    report = bench.api.objects[f"/apis/bessemer.dev/v1alpha1/hosts/{HOST}"]["status"]["report"]
    assert report["fake"] is True
    assert len(report["devices"]) == 24
    assert report["agentVersion"]
    assert bench.api.calls[f"POST /hosts/{HOST}/join"] == 1
    await bench.clock.advance(300)
    assert bench.api.calls[f"PUT /hosts/{HOST}/status"] == 1, "said once, not again while nothing changes"
    assert 14 <= bench.api.calls[f"POST /hosts/{HOST}/heartbeat"] <= 19, "by request, where no socket takes it"


async def test_its_last_word_is_that_it_leaves(bench: Bench) -> None:
    bench.start()
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/heartbeat"])
    assert bench.api.left == []
    await bench.kill()
    assert bench.api.left == [HOST]


async def test_an_end_while_the_api_is_away_is_an_end(bench: Bench) -> None:
    bench.start()
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/heartbeat"])
    bench.api.away = True
    await bench.kill()
    assert bench.api.left == []


async def test_the_heart_beats_over_the_socket_while_there_is_one(bench: Bench) -> None:
    bench = bench.memory()
    bench.api.hearts = True
    bench.start()
    await bench.expect(lambda: bench.api.calls[f"BEAT {HOST}"])
    await bench.clock.advance(300)
    assert 14 <= bench.api.calls[f"BEAT {HOST}"] <= 19
    assert not bench.api.calls[f"POST /hosts/{HOST}/heartbeat"]


async def test_a_beat_that_the_socket_does_not_answer_is_asked_for_by_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 0.01)
    bench = bench.memory()
    bench.api.hearts, bench.api.deaf = True, True
    bench.start()
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/heartbeat"] == 2)
    monkeypatch.setattr(streams, "ANSWER_SECONDS", 30.0)  # which is long enough on a busy machine
    bench.api.deaf = False
    heard = bench.api.calls[f"BEAT {HOST}"]
    await bench.expect(lambda: bench.api.calls[f"BEAT {HOST}"] > heard + 1)
    assert bench.api.calls[f"POST /hosts/{HOST}/heartbeat"] == 2


async def test_the_key_never_leaves_and_is_for_its_user_alone(bench: Bench) -> None:
    agent = bench.start()
    await agent.joined()
    key = bench.directory / "identity" / "agent.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert bench.directory.joinpath("identity").stat().st_mode & 0o777 == 0o700


async def test_a_second_start_joins_no_more(bench: Bench) -> None:
    agent = bench.start()
    await agent.joined()
    await bench.kill()
    agent = bench.start(token="")
    await agent.joined()
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/heartbeat"] > 1)
    assert bench.api.calls[f"POST /hosts/{HOST}/join"] == 1


async def test_a_lost_answer_to_a_join_is_asked_for_by_key(bench: Bench) -> None:
    agent = bench.start()
    await agent.joined()
    await bench.kill()
    (bench.directory / "identity" / "agent.crt").unlink()
    agent = bench.start()
    await bench.expect(lambda: Identity(bench.directory / "identity", HOST).life())
    assert bench.api.calls[f"POST /hosts/{HOST}/join"] == 3, "the token is refused, the signature is not"


async def test_a_refused_certificate_is_renewed(bench: Bench) -> None:
    bench.start()
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/heartbeat"])
    bench.api.refuse[f"/hosts/{HOST}/heartbeat"] = Unauthenticated("not any more")
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/join"] > 1)
    bench.api.refuse.clear()
    before = bench.api.calls[f"POST /hosts/{HOST}/heartbeat"]
    await bench.expect(lambda: bench.api.calls[f"POST /hosts/{HOST}/heartbeat"] > before)


async def test_converges_and_deletes_cleanly(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    assert bench.api.status(body)["detail"]["guest"]["cpus"] == 2
    bench.api.retire(body)
    await bench.expect(lambda: phase(bench, body) == "Gone")
    assert bench.qemu.world.guests == {}
    assert bench.disks.world.sizes == {}
    assert list((bench.directory / "claims").iterdir()), "kept until the api has let go"
    bench.api.release(body)
    await bench.expect(lambda: not list((bench.directory / "claims").iterdir()))
    assert [p for u, p in bench.api.statuses][-1] == "Gone"


async def test_stops_and_starts_by_amended_intent(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    bench.api.amend(body, running=False)
    await bench.expect(lambda: phase(bench, body) == "Stopped")
    bench.api.amend(body, running=True)
    await bench.expect(lambda: phase(bench, body) == "Running")
    assert bench.qemu.world.starts == 2
    assert bench.api.status(body)["observedGeneration"] == 3


async def test_adopts_what_runs_after_kill_9(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    before = await bench.qemu.find("uid-1"), bench.api.status(body)
    await bench.kill()
    bench.start()
    await bench.clock.advance(60)
    await bench.expect(lambda: bench.api.calls["WATCH /claims"] > 1)
    await bench.clock.advance(60)
    assert (await bench.qemu.find("uid-1"), bench.api.status(body)) == before
    assert bench.qemu.world.starts == 1


async def test_adopts_while_the_api_is_away(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    await bench.kill()
    bench.api.away = True
    bench.start()
    bench.qemu.world.kill_process("uid-1")
    await bench.expect(lambda: bench.qemu.world.starts == 2)
    assert phase(bench, body) == "Running", "the api has heard nothing yet"
    bench.api.away = False
    await bench.expect(lambda: bench.api.status(body).get("restarts") == 1 and phase(bench, body) == "Running")


async def test_six_hours_without_the_api(bench: Bench) -> None:
    bench = bench.memory()
    bench.start()
    await running(bench)
    chat = bench.api.put(replica())
    await bench.expect(lambda: phase(bench, chat) == "Running")

    async def processes() -> tuple[object, object]:
        return await bench.qemu.find("uid-1"), await bench.drivers.host.engine.find("uid-e")

    before = await processes()
    assert None not in before
    bench.api.away = True
    bench.api.cut()
    for _ in range(72):
        await bench.clock.advance(300)
    assert await processes() == before
    said = len(bench.api.statuses)
    bench.api.away = False
    watched = bench.api.calls["WATCH /claims"]
    await bench.expect(lambda: bench.api.calls["WATCH /claims"] > watched)
    await bench.clock.advance(60)
    assert await processes() == before
    # What an engine counted is read once a minute until it stands still: that may not have been told yet.
    assert bench.api.statuses[said:] in ([], [("uid-e", "Running")]), "nothing had changed, and nothing is said twice"
    assert bench.qemu.world.starts == 1
    await bench.kill()


async def test_a_guest_that_dies_while_the_api_is_away_is_told_of_once(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    said = len(bench.api.statuses)
    bench.api.away = True
    bench.api.cut()
    for n in range(2, 4):
        bench.qemu.world.kill_process("uid-1")
        await bench.expect(lambda n=n: bench.qemu.world.starts == n)
    await bench.clock.advance(30)
    bench.api.away = False
    await bench.expect(lambda: bench.api.status(body)["restarts"] == 2)
    assert len(bench.api.statuses) == said + 1, "the newest status took the place of all before it"


async def test_released_while_away_is_taken_away_and_not_told(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    await bench.kill()
    bench.api.release(body)
    said = len(bench.api.statuses)
    bench.start()
    await bench.expect(lambda: not bench.qemu.world.guests)
    await bench.expect(lambda: not list((bench.directory / "claims").iterdir()))
    assert len(bench.api.statuses) == said


async def test_fenced_while_connected_is_taken_away(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    bench.api.release(body)
    await bench.expect(lambda: not bench.qemu.world.guests)
    await bench.expect(lambda: not list((bench.directory / "claims").iterdir()))


async def test_a_name_taken_anew_waits_until_the_old_one_is_gone(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    await bench.kill()
    bench.api.release(body)
    heir = bench.api.put(claim(uid="uid-2"))
    bench.start()
    await bench.expect(lambda: phase(bench, heir) == "Running")
    assert set(bench.qemu.world.guests) == {"uid-2"}
    assert bench.api.status(heir)["restarts"] == 0


async def test_orphans_are_removed_once_the_api_has_said_what_there_is(bench: Bench) -> None:
    bench.start()
    await running(bench)
    await bench.kill()
    await bench.disks.create("orphan", 1 << 20)
    bench.api.away = True
    bench.start()
    await bench.clock.advance(600)
    assert "orphan" in bench.disks.world.sizes
    bench.api.away = False
    await bench.expect(lambda: "orphan" not in bench.disks.world.sizes)
    assert set(bench.disks.world.sizes) == {"uid-1"}
    assert set(bench.qemu.world.guests) == {"uid-1"}


async def test_lists_anew_where_history_has_run_out(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    bench.api.away = True
    bench.api.cut()
    await bench.clock.advance(5)
    bench.api.release(body)
    other = bench.api.put(claim("instance-other-0", "uid-2"))
    bench.api.compact()
    bench.api.away = False
    await bench.expect(lambda: phase(bench, other) == "Running")
    await bench.expect(lambda: set(bench.qemu.world.guests) == {"uid-2"})


async def test_a_thousand_cuts_cost_nothing(bench: Bench) -> None:
    """A reconnect storm: every connection ends again and again."""
    bench.start()
    body = await running(bench)
    said = len(bench.api.statuses)
    for _ in range(100):
        bench.api.cut()
        await bench.clock.advance(0.3)
    await bench.clock.advance(30)
    assert bench.api.calls["WATCH /claims"] < 110
    assert len(bench.api.statuses) == said
    bench.api.retire(body)
    await bench.expect(lambda: phase(bench, body) == "Gone")


async def test_what_no_host_side_knows_fails_and_says_why(bench: Bench) -> None:
    bench.start()
    body = bench.api.put(claim(kind="Volcano"))
    await bench.expect(lambda: phase(bench, body) == "Failed")
    assert bench.api.status(body)["reason"] == "KindUnknown"


async def test_a_defect_ends_the_process(bench: Bench) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    bench.drivers.inspect.inventory = broken  # type: ignore[method-assign,assignment]
    bench.start()
    with pytest.raises(ExceptionGroup):
        await bench.expect(lambda: False, seconds=1)
    bench.running.clear()


async def test_a_full_disk_is_told_of_and_waited_out(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.start()
    other = await running(bench)

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    body = bench.api.put(claim("instance-late-0", "uid-2"))
    await bench.expect(lambda: bench.api.status(body).get("reason") == "DiskFull")
    ready = next(c for c in bench.api.status(body)["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "DiskFull")
    assert set(bench.qemu.world.guests) == {"uid-1"}, "what is not durable is not begun"
    bench.api.retire(other)
    await bench.expect(lambda: phase(bench, other) == "Gone")
    monkeypatch.undo()
    await bench.expect(lambda: phase(bench, body) == "Running")
    assert bench.api.status(body)["reason"] == ""


async def test_a_corrupted_intent_is_set_aside_and_asked_for_again(bench: Bench) -> None:
    bench.start()
    body = await running(bench)
    process = await bench.qemu.find("uid-1")
    await bench.kill()
    file = bench.directory / "claims" / "uid-1.intent"
    file.write_bytes(file.read_bytes()[:-9] + b"nonsense\n")
    bench.start()
    await bench.expect(lambda: bench.api.calls["WATCH /claims"] > 1)
    await bench.clock.advance(30)
    assert await bench.qemu.find("uid-1") == process, "not taken for an orphan, nor started twice"
    assert phase(bench, body) == "Running"
    assert file.exists()


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
async def test_a_clock_that_jumps_a_day_changes_nothing(bench: Bench, jump: float) -> None:
    bench.start()
    body = await running(bench)
    process, since = await bench.qemu.find("uid-1"), bench.api.status(body)["phaseSince"]
    bench.clock.jump(jump)
    beats = bench.api.calls[f"POST /hosts/{HOST}/heartbeat"]
    await bench.clock.advance(120)
    assert bench.api.calls[f"POST /hosts/{HOST}/heartbeat"] >= beats + 5
    assert await bench.qemu.find("uid-1") == process
    assert bench.api.status(body)["phaseSince"] == since
