"""The home folder of a user who has none, or may not make one."""

import os
import pwd

import pytest

from service.cli.main import main
from service.client.client import Client
from service.errors import StackError
from service.home import private_home
from service.settings import Settings


@pytest.fixture
def homeless(monkeypatch):
    """A user id that the machine does not know, as containers have it."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for name in ("HOME", "CBAM_HOME", "CBAM_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", ["list", "up", "doctor", "down"])
def test_a_command_says_what_to_set(monkeypatch, capsys, command):
    monkeypatch.setattr("sys.argv", ["cbam", command])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("this user has no home folder (HOME is not set); set CBAM_HOME to a folder")
    )


@pytest.mark.usefixtures("homeless")
def test_with_an_address_or_a_folder_none_is_needed(monkeypatch, tmp_path):
    Client("http://127.0.0.1:1").close()
    monkeypatch.setenv("CBAM_HOME", str(tmp_path))
    Client().close()
    assert Settings().home == tmp_path


def test_a_home_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match=r"cannot be made .*set CBAM_HOME"):
        private_home(tmp_path / "file" / "home", ())
    assert os.listdir(tmp_path) == ["file"]
