"""One service, several languages: each request gets the template of its own."""

import pytest
from falcon import testing
from pyvmm.api.app import create_app
from pyvmm.api.settings import Settings

from pyvmm import LocalPool, PyvmmError, Template

pytestmark = pytest.mark.kvm


@pytest.fixture(scope="module")
def client(host):
    try:
        templates = {name: Template.build(name, host=host) for name in ("python", "bash", "node")}
    except PyvmmError as error:
        pytest.fail(f"the templates cannot be built: {error}", pytrace=False)
    with LocalPool(templates, max_running=4, ready=1) as pool:
        app = create_app(pool, Settings())
        yield testing.TestClient(app)
        app.close()


@pytest.mark.parametrize(
    ("fields", "stdout"),
    [
        ({"code": "import sys; print(sys.argv)"}, "['/home/user/main.py']\n"),
        ({"code": "echo $0", "language": "bash"}, "/home/user/main.sh\n"),
        ({"code": "console.log(__filename)", "language": "node"}, "/home/user/main.js\n"),
        ({"code": "console.log(await 7)", "language": "javascript"}, "7\n"),
    ],
)
def test_each_language_has_its_own_template(client, fields, stdout):
    reply = client.simulate_post("/v1/exec", json=fields)
    assert reply.status_code == 200, reply.text
    assert (reply.json["stdout"], reply.json["stderr"], reply.json["exit_code"]) == (stdout, "", 0)


def test_a_batch_in_several_languages(client):
    executions = [
        {"code": "process.exit(3)", "language": "node"},
        {"code": "print(1)"},
        {"code": "exit 4", "language": "bash"},
        {"code": "throw new Error('x')", "language": "javascript"},
    ]
    reply = client.simulate_post("/v1/exec/batch", json={"executions": executions})
    assert [each["exit_code"] for each in reply.json["results"]] == [3, 0, 4, 1]


def test_a_batch_with_an_unknown_language_runs_nothing(client):
    executions = [{"code": "1", "language": "node"}, {"code": "1", "language": "cobol"}]
    reply = client.simulate_post("/v1/exec/batch", json={"executions": executions})
    assert reply.status_code == 400
    assert reply.json["error"].startswith("Field `executions[1].language`: the language is unknown")


def test_health_names_all_templates(client):
    reply = client.simulate_get("/v1/health")
    assert reply.status_code == 200
    assert set(reply.json["templates"]) == {"python", "bash", "node"}
    assert all(each["ready"] and each["memory_mb"] >= 256 for each in reply.json["templates"].values())


def test_metrics_count_by_language(client):
    client.simulate_post("/v1/exec", json={"code": "1", "language": "javascript"})
    assert 'pyvmm_executions_total{language="node",outcome="ok"}' in client.simulate_get("/v1/metrics").text
