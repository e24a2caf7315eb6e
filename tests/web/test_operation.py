"""A route returns a model, and its JSON has what was given."""

import pytest
from flask import Flask

from chainbench_agent.web.operation import Answer, operation


class Box(Answer):
    """With a field that is always given, one that may be null, and one that may be left out."""

    name: str
    size: int | None
    remedy: str = ""


@pytest.mark.parametrize(
    ("given", "json"),
    [
        ({"size": 1, "name": "a"}, b'{"name":"a","size":1}\n'),
        ({"remedy": "", "name": "a", "size": None}, b'{"name":"a","size":null,"remedy":""}\n'),
    ],
)
def test_a_model_becomes_json_in_the_order_of_its_declaration(given, json):
    """A field that was not given is left out; one that was given as None is null."""
    app = Flask(__name__)
    app.json.sort_keys = False

    @app.get("/")
    @operation("A box", answer=Box)
    def view():
        return Box(**given)

    assert app.test_client().get("/").data == json


def test_any_other_answer_is_passed_on():
    @operation("Nothing", status=204)
    def view(number):
        """A description."""
        return "", number

    assert view(204) == ("", 204)
    assert (view.operation.summary, view.operation.status, view.__doc__) == ("Nothing", 204, "A description.")
