from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from stt_core.errors import ConfigError
from stt_websocket import client_context, server_context
from stt_websocket.tls import client_context_from, server_context_from

if TYPE_CHECKING:
    from pathlib import Path


def test_contexts_speak_tls_1_2_and_up(certificates: Path) -> None:
    for context in (server_context(certificates / "certificate.pem", certificates / "key.pem"), client_context()):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_client_verifies_certificate_and_name() -> None:
    context = client_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_certificate_and_key_may_be_one_file(certificates: Path, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes((certificates / "certificate.pem").read_bytes() + (certificates / "key.pem").read_bytes())

    server_context(both)


@pytest.mark.parametrize(
    ("certificate", "key"),
    [("missing.pem", "key.pem"), ("certificate.pem", "missing.pem"), ("key.pem", "key.pem"), ("certificate.pem", None)],
)
def test_files_that_cannot_be_used_are_a_config_error(certificates: Path, certificate: str, key: str | None) -> None:
    with pytest.raises(ConfigError, match=certificate):
        server_context(certificates / certificate, None if key is None else certificates / key)


def test_an_encrypted_key_is_a_config_error_and_no_question_at_the_terminal(certificates: Path) -> None:
    with pytest.raises(ConfigError, match="encrypted"):
        server_context(certificates / "certificate.pem", certificates / "encrypted.pem")


def test_authorities_that_cannot_be_read_are_a_config_error(certificates: Path) -> None:
    for name in ("missing.pem", "key.pem"):
        with pytest.raises(ConfigError, match=name):
            client_context(certificates / name)


def test_files_are_named_by_the_environment(certificates: Path) -> None:
    certificate, key = str(certificates / "certificate.pem"), str(certificates / "key.pem")

    server = server_context_from({"STT_WEBSOCKET_CERTIFICATE": certificate, "STT_WEBSOCKET_KEY": key})
    client = client_context_from({"STT_WEBSOCKET_CA": certificate})

    assert server.cert_store_stats() == ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).cert_store_stats()
    assert client.cert_store_stats()["x509_ca"] == client_context_from({}).cert_store_stats()["x509_ca"] + 1


def test_a_server_without_a_certificate_is_a_config_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="STT_WEBSOCKET_CERTIFICATE"):
        server_context_from({})
