import pytest

from rl8.tracking.secrets import is_secret, redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at postgresql+psycopg2://me:abc@host:5432/db now", "at postgresql+psycopg2://me:***@host:5432/db now"),
        ("http://abc@host:5000", "http://***@host:5000"),
        ("http://me:a/b@c@host/x", "http://me:***@host/x"),
        ("http://:abc@host", "http://:***@host"),
        ("'mysql://me:abc@host', 'x@y'", "'mysql://me:***@host', 'x@y'"),
        ("http://host:5000/runs/me@home", "http://host:5000/runs/me@home"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("mail me@home", "mail me@home"),
        ("+env.api_key=abc seed=1", "+env.api_key=*** seed=1"),
        ("{'db_password': 'a b', 'seed': 1}", "{'db_password': ***, 'seed': 1}"),
        ("https://host/x?token=abc&seed=1", "https://host/x?token=***&seed=1"),
        ("password:\n  seed: 1", "password:\n  seed: 1"),
        (
            "model.num_tokens=8 model.token_dim=4 model.pad_token=0",
            "model.num_tokens=8 model.token_dim=4 model.pad_token=0",
        ),
        ("env.token=null env.use_token=true", "env.token=null env.use_token=true"),
    ],
)
def test_redacted(text, shown):
    assert redacted(text) == shown
    assert redacted(shown) == shown


def test_mlflows_own_password_is_known_by_its_value(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cret")
    assert redacted("refused: me/s3cret") == "refused: me/***"


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("env.api_key", "abc", True),
        ("password", 1234, True),
        ("env.auth_token", "abc", True),
        ("env.pad_token", 0, False),
        ("env.use_token", True, False),
        ("env.token", None, False),
        ("env.password", {"length": 3}, False),
        ("env.mistoken", "abc", False),
        ("env.key", "abc", False),
    ],
)
def test_names_of_secrets(name, value, secret):
    assert is_secret(name, value) is secret
