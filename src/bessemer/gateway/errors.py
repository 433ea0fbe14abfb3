"""The errors of OpenAI's API, byte for byte as its clients know them, and which of ours become which."""

from __future__ import annotations

from dataclasses import dataclass

import orjson


@dataclass(frozen=True, slots=True)
class Words:
    """The body of an error. ``retry_after_seconds`` 0 sends no header."""

    message: str
    type: str
    code: str | None = None
    param: str | None = None
    retry_after_seconds: int = 0


class Refused(Exception):
    """An answer other than the model's; ``lines`` of a head go with it."""

    def __init__(self, status: int, words: Words, *, lines: bytes = b"") -> None:
        super().__init__(words.message)
        self.status = status
        self.words = words
        self.lines = lines

    @property
    def retry_after_seconds(self) -> int:
        return self.words.retry_after_seconds

    def body(self) -> bytes:
        """``{"error": {message, type, param, code}}``."""
        words = self.words
        error = {"message": words.message, "type": words.type, "param": words.param, "code": words.code}
        return orjson.dumps({"error": error})


def no_key() -> Refused:
    text = (
        "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
    )
    return Refused(401, Words(text + "(i.e. Authorization: Bearer YOUR_KEY).", "invalid_request_error"))


def wrong_key(token: str) -> Refused:
    """Also for one that was revoked, disabled or has expired: nothing tells them apart."""
    shown = f"{token[:7]}***{token[-4:]}" if len(token) > 20 else "***"
    return Refused(401, Words(f"Incorrect API key provided: {shown}.", "invalid_request_error", "invalid_api_key"))


def wrong_network() -> Refused:
    text = "Your IP address is not in a network from which this API key may be used."
    return Refused(401, Words(text, "invalid_request_error", "ip_not_authorized"))


def no_model(name: str) -> Refused:
    """Also for an endpoint of another project: one may not know that it exists."""
    text = f"The model `{name[:100]}` does not exist or you do not have access to it."
    return Refused(404, Words(text, "invalid_request_error", "model_not_found", "model"))


def no_route(method: str, path: str) -> Refused:
    return Refused(404, Words(f"Invalid URL ({method} {path[:100]})", "invalid_request_error"))


def only_embeds(name: str) -> Refused:
    text = f"The model `{name[:100]}` only embeds, and writes no answers: ask it at /v1/embeddings."
    return Refused(400, Words(text, "invalid_request_error", "unsupported_operation", "model"))


def embeds_not(name: str) -> Refused:
    text = f"The model `{name[:100]}` writes answers, and does not embed: its engine serves no embeddings."
    return Refused(400, Words(text, "invalid_request_error", "unsupported_operation", "model"))


def malformed(message: str, param: str | None = None) -> Refused:
    return Refused(400, Words(message, "invalid_request_error", None, param))


def unreadable(why: str) -> Refused:
    """What is no HTTP, or HTTP that two readers may understand differently."""
    return Refused(400, Words(f"The request is not well-formed HTTP/1.1: {why}.", "invalid_request_error"))


def too_slow() -> Refused:
    return Refused(408, Words("The request did not arrive in time.", "invalid_request_error", "request_timeout"))


def long_address(limit: int) -> Refused:
    return Refused(414, Words(f"The request's URL is longer than {limit} bytes.", "invalid_request_error"))


def encoded(encoding: str) -> Refused:
    """A small body that unpacks to a giant one is nobody's to unpack."""
    text = f"Content-Encoding `{encoding[:40]}` is not supported: send the body as it is."
    return Refused(415, Words(text, "invalid_request_error", "unsupported_content_encoding"))


def unexpected(what: str) -> Refused:
    return Refused(417, Words(f"Expect: {what[:40]} cannot be met.", "invalid_request_error"))


def large_head(most: str) -> Refused:
    return Refused(431, Words(f"The request's header has more than {most}.", "invalid_request_error"))


def other_version() -> Refused:
    return Refused(505, Words("This server speaks HTTP/1.1.", "invalid_request_error"))


def crowded() -> Refused:
    text = "The gateway holds as many requests as it can at present. Try again in a second."
    return Refused(503, Words(text, "server_error", "gateway_busy", None, 1))


def too_large(limit: int) -> Refused:
    return Refused(
        413, Words(f"The request body is larger than {limit} bytes.", "invalid_request_error", "request_too_large")
    )


def no_replica(name: str) -> Refused:
    text = f"No replica of `{name}` is ready. Try again in a few seconds."
    return Refused(503, Words(text, "server_error", "no_replica_ready", None, 5))


def still_waking(name: str, seconds: float) -> Refused:
    text = f"`{name}` had no replica, and none was ready within {seconds:g} s; one is being started. Try again."
    return Refused(503, Words(text, "server_error", "no_replica_ready", None, 5))


def replica_failed(name: str) -> Refused:
    text = f"The replica of `{name}` that answered was lost before its answer began. Try again."
    return Refused(502, Words(text, "server_error", "replica_failed", None, 1))


def answer_cut(name: str) -> Refused:
    """Within a stream: its status was sent long ago."""
    text = f"The replica of `{name}` was lost in the middle of its answer. What came before this is all there is of it."
    return Refused(502, Words(text, "server_error", "answer_cut"))


def replica_stopped(name: str) -> Refused:
    """Within a stream, too."""
    text = (
        f"The replica of `{name}` that answered was stopped (updated, moved, not needed any more) before it was done. "
    )
    text += "What came before this is all there is of it, and what is paid for. Ask again."
    return Refused(502, Words(text, "server_error", "replica_stopped"))


def gateway_stops() -> Refused:
    """Within a stream, too."""
    text = "The gateway is stopped, and its time to finish was over. What came before this is all there is. Ask again."
    return Refused(503, Words(text, "server_error", "gateway_stopped", None, 1))


def answer_unfit(name: str) -> Refused:
    text = f"What `{name}` answered cannot be passed on: it is too large, or not in the form of OpenAI's API."
    return Refused(502, Words(text, "server_error", "answer_unfit"))


def replica_silent(name: str, seconds: float) -> Refused:
    text = f"No replica of `{name}` began to answer within {seconds:g} s. Try again later, or with a shorter input."
    return Refused(504, Words(text, "server_error", "replica_timeout", None, 5))


def overloaded(name: str, *, retry_after_seconds: int) -> Refused:
    """All replicas are busy, and too many wait already or it has waited too long."""
    text = f"All replicas of `{name}` are busy, and so many requests wait that yours cannot. Try again later."
    return Refused(503, Words(text, "server_error", "overloaded", None, retry_after_seconds))


def deadline_passed() -> Refused:
    text = "The answer was not there within the time that `x-request-timeout` gave it."
    return Refused(504, Words(text, "server_error", "deadline_exceeded"))


def rate_limited(words: str, *, retry_after_seconds: int) -> Refused:
    """``words`` say whose bound it is, and what is left of it."""
    text = f"Rate limit reached: {words}. Let `max_tokens` be less, or try again once there is room."
    return Refused(429, Words(text, "tokens", "rate_limit_exceeded", None, retry_after_seconds))


def too_much() -> Refused:
    return malformed("What your request may amount to is more than anybody may hold. Let `max_tokens` or `n` be less.")


def limit_unknown() -> Refused:
    text = "Whether your project may use more tokens now cannot be found out at present. Try again in a second."
    return Refused(503, Words(text, "server_error", "limit_unknown", None, 1))


def bearer_unknown() -> Refused:
    text = "Who you are cannot be found out at present. Try again in a second."
    return Refused(503, Words(text, "server_error", "bearer_unknown", None, 1))


def no_room_for_usage() -> Refused:
    text = "The gateway cannot record usage at present (its disk is full) and so serves nothing. Try again later."
    return Refused(503, Words(text, "server_error", "usage_not_recordable", None, 30))


def cut_off() -> Refused:
    text = "Whether keys are good has not been known here for too long. Try again in a few seconds."
    return Refused(503, Words(text, "server_error", "cut_off", None, 5))


def starting() -> Refused:
    return Refused(503, Words("The gateway is starting. Try again in a second.", "server_error", "starting", None, 1))
