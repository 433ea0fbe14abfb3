"""JSON patch (RFC 6902) from outside: bounded in operations and in what it copies, and refused in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import jsonpatch
import jsonpointer
import orjson

from bessemer.core.errors import Invalid, Malformed, TooLarge

OPERATIONS_MAX = 1000
COPIED_BYTES_MAX = 1 << 20
_REFUSED = "the server rejected our request due to an error in our request"


def apply(document: dict[str, Any], operations: Any) -> Any:
    """The patched document; ``document`` is not changed. Raises Malformed for what is no patch, Invalid where an
    operation does not apply (also a failing ``test``), TooLarge past the bounds."""
    if not isinstance(operations, list) or not all(isinstance(o, dict) for o in operations):
        raise Malformed("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > OPERATIONS_MAX:
        raise TooLarge(f"a JSON patch has at most {OPERATIONS_MAX} operations")
    value: Any = orjson.loads(orjson.dumps(document))
    copied = 0
    for operation in operations:
        try:
            copied += _copies(value, operation)
            if copied > COPIED_BYTES_MAX:
                raise TooLarge(f"a JSON patch copies at most {COPIED_BYTES_MAX} bytes")
            value = jsonpatch.apply_patch(value, [operation], in_place=True)
        except jsonpatch.InvalidJsonPatch as error:
            raise Malformed(f"not a JSON patch: {str(error)[:200]}") from error
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException) as error:
            raise Invalid(_REFUSED) from error
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise Invalid(_REFUSED, internal=repr(error)) from error
    return value


def _copies(value: Any, operation: dict[str, Any]) -> int:
    """Bytes that an operation copies. Copies of copies double what they touch: 40 of them would fill the memory."""
    if operation.get("op") != "copy":
        return 0
    return len(orjson.dumps(jsonpointer.resolve_pointer(value, operation["from"])))
