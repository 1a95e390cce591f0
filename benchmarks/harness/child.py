"""The process of a contender: ``python -m harness.child``. Takes a call as a line of JSON, answers with one.

Runs under the contender's own Python, so it imports nothing but the standard library and what it is told to call.
"""

import importlib
import json
import os
import resource
import sys
import traceback
from typing import Any

from harness import memory

__all__: list[str] = []


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Call ``module:function``, which returns a number, or a dict with ``value`` and whatever else is to be noted."""
    module, _, name = request['function'].partition(':')
    function = getattr(importlib.import_module(module), name)
    before = memory.reset_peak()
    result = function(**request['arguments'])
    reply = dict(result) if isinstance(result, dict) else {'value': result}
    reply.setdefault('peak_rss_mb', memory.peak_mb())
    reply.setdefault('rss_before_mb', before)
    return reply


def main() -> None:
    # Whatever a package prints goes to stderr; the pipe is for answers alone.
    replies = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    # Batches of workers come through open files, and the usual 1024 are too few for one of the contenders.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for line in sys.stdin:
        try:
            reply = answer(json.loads(line))
        except Exception as error:
            traceback.print_exc()
            reply = {'error': f'{type(error).__name__}: {error}'.splitlines()[0]}
        replies.write(json.dumps(reply) + '\n')


if __name__ == '__main__':
    main()
