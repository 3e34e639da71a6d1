"""An AWS Lambda function that embeds what waits; EventBridge calls it every minute.

VECTORIZER_URL and, where the model needs one, OPENAI_API_KEY stand in its environment. It serves
the vectorizers that the event names, `{"names": ["blog"]}`, or those of VECTORIZER_NAMES,
separated by commas. Invocations may overlap. Give it at least 256 MB, and a timeout of a minute
or more. Its package is made in a clone, on Linux with Lambda's version of Python:

    pip install --target package .
    cp deploy/lambda/handler.py package
    cd package && zip -r ../package.zip .

The handler's name is then handler.handler.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

from vectorizer import Vectorizer
from vectorizer.errors import VectorizerError

# No batch is begun so shortly before the end; one that is cut off is done again by the next call,
# when its lease has run out.
RESERVE_SECONDS = 15.0
# As long as a batch may take without a sign of life.
LEASE_SECONDS = 30.0


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    """Drain vectorizers in turns while there is time; return the number of rows by name.

    Raises VectorizerError if one of them could not be served, when the others have been.
    """
    names = event.get("names") or os.environ["VECTORIZER_NAMES"].split(",")
    rows = dict.fromkeys((name.strip() for name in names), 0)
    errors: list[VectorizerError] = []
    with ExitStack() as stack:
        left = {}
        for name in rows:
            try:
                connected = Vectorizer.connect(
                    os.environ["VECTORIZER_URL"], name, lease_seconds=LEASE_SECONDS
                )
            except VectorizerError as error:
                errors.append(error)
            else:
                left[name] = stack.enter_context(connected)
        while left and context.get_remaining_time_in_millis() / 1000 > RESERVE_SECONDS:
            for name, vectorizer in list(left.items()):
                try:
                    done = vectorizer.process()
                except VectorizerError as error:
                    errors.append(error)
                    done = 0
                rows[name] += done
                if done == 0:
                    del left[name]
    if errors:
        raise errors[0]
    return rows
