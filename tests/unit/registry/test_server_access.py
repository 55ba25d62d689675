"""Who may pull from a bundle that is served: the users of an htpasswd file."""

import base64
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import pytest

from regwrap.core.errors import UsageError
from regwrap.registry import server_access
from regwrap.registry.server import Login
from regwrap.registry.server_access import read_htpasswd

BCRYPT = "$2y$04$XXUB2dh75RjTsWfig2vOOeL0W.FvulEnva4D2Q79k2aFuRnVzrWQe"  # of "secret"
LONG = "long " * 20
BCRYPT_LONG = "$2b$04$qjk1IBtlxY0dq9pMK1mg3ut7XCOdSn9tr7ZNoZCNCqPAncCZoDp/K"  # of the first 72 bytes of LONG

HERE = "127.0.0.1"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def login(tmp_path: Path) -> Login:
    path = tmp_path / "htpasswd"
    path.write_text(f"ci:{BCRYPT}\n\n# people\nmüller:{BCRYPT_LONG}\nold:{BCRYPT.replace('$2y$', '$2a$')}\n")
    return read_htpasswd(path)


@pytest.mark.parametrize(("user", "password"), [("ci", "secret"), ("old", "secret"), ("müller", LONG)])
def test_who_knows_the_password_may_pull(login: Login, user: str, password: str) -> None:
    assert login(basic(user, password), HERE)
    assert login(basic(user, password), HERE)
    assert login(basic(user, password).replace("Basic", "bAsIc"), HERE)


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("ci", ""),
        ("ci", "Secret"),
        ("ci", "secret\0"),
        ("xx", "secret"),
        ("", "secret"),
        ("müller", "long"),
        ("ci", "s\0"),
    ],
)
def test_who_does_not_may_not(login: Login, user: str, password: str) -> None:
    assert not login(basic(user, password), HERE)
    assert not login(basic(user, password), HERE)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic %%%",
        "Basic Y2k6c2Vj%cmV0",
        "Basic Y2k=",
        "Basic /w==",
        "Bearer " + basic("ci", "secret").partition(" ")[2],
    ],
)
def test_a_header_that_is_no_login_is_refused(login: Login, header: str) -> None:
    assert not login(header, HERE)


def test_an_empty_password_has_to_be_given_too(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"ci:{bcrypt.hashpw(b'', bcrypt.gensalt(4)).decode()}\n")
    login = read_htpasswd(path)
    assert not login("Basic " + base64.b64encode(b"ci").decode(), HERE)
    assert login(basic("ci", ""), HERE)


@dataclass
class Clock:
    """Stands for the clock and for bcrypt, which takes as long as the hash says, and finds all passwords wrong."""

    now: float = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    def checkpw(self, _password: bytes, hashed: bytes) -> bool:
        self.now += 2 ** int(hashed[4:6])
        return False


@pytest.mark.parametrize("first", ["cheap", "dear", "nobody"])
def test_a_wrong_password_takes_as_long_for_whom_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Else the time would tell who has an account, and with which kind of hash; the first answer too."""
    clock = Clock()
    monkeypatch.setattr(server_access, "time", clock)
    monkeypatch.setattr(bcrypt, "checkpw", clock.checkpw)
    path = tmp_path / "htpasswd"
    path.write_text(f"cheap:{BCRYPT}\ndear:{BCRYPT.replace('$04$', '$14$')}\n")
    login, taken = read_htpasswd(path), list[float]()
    for user in (first, "cheap", "nobody", "dear", "cheap"):
        started = clock.now
        assert not login(basic(user, "wrong"), HERE)
        taken.append(clock.now - started)
    assert len(set(taken)) == 1
    assert taken[0] <= 2**14 + 2**4


@pytest.mark.exhaustive
def test_an_unknown_user_takes_the_time_of_a_known_one(tmp_path: Path) -> None:
    """Else the time of an answer would tell who has an account. By turns, as it is the slowest so far that counts."""
    path = tmp_path / "htpasswd"
    path.write_text(f"ci:{BCRYPT.replace('$04$', '$09$')}\n")
    login = read_htpasswd(path)

    def cost(user: str) -> float:
        before = time.monotonic()
        assert not login(basic(user, "wrong"), HERE)
        return time.monotonic() - before

    pairs = [(cost("ci"), cost("nobody")) for _ in range(6)]
    known, unknown = (min(times[1:]) for times in zip(*pairs, strict=True))
    assert 0.5 < unknown / known < 2


@pytest.mark.parametrize("cost", ["00", "03", "32", "99"])
def test_a_hash_of_an_impossible_cost_is_refused_with_its_line(tmp_path: Path, cost: str) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"ci:{BCRYPT}\nxx:{BCRYPT.replace('$04$', f'${cost}$')}\n")
    with pytest.raises(UsageError, match=r"htpasswd:2: expected USER:HASH with a bcrypt hash"):
        read_htpasswd(path)


def test_a_file_that_cannot_be_read_or_has_no_users_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="absent cannot be read"):
        read_htpasswd(tmp_path / "absent")
    (tmp_path / "latin").write_bytes(f"m\xfcller:{BCRYPT}\n".encode("latin-1"))
    with pytest.raises(UsageError, match="latin cannot be read"):
        read_htpasswd(tmp_path / "latin")
    (tmp_path / "empty").write_text("# nobody\n")
    with pytest.raises(UsageError, match="empty has no users"):
        read_htpasswd(tmp_path / "empty")


def test_where_bcrypt_is_not_installed_it_is_said_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_access, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match="--htpasswd needs bcrypt") as raised:
        read_htpasswd(tmp_path / "htpasswd")
    assert "apt-get install python3-bcrypt" in raised.value.hint


def test_who_was_right_once_costs_nothing_more(tmp_path: Path) -> None:
    """A pull has hundreds of requests, and a password is slow to check on purpose. CPU time of this thread."""
    path = tmp_path / "htpasswd"
    path.write_text(f"ci:{bcrypt.hashpw(b'secret', bcrypt.gensalt(8)).decode()}\n")
    login = read_htpasswd(path)

    def cost() -> float:
        before = time.thread_time()
        assert login(basic("ci", "secret"), HERE)
        return time.thread_time() - before

    first = cost()
    assert min(cost() for _ in range(3)) < first / 10


@pytest.mark.exhaustive
def test_a_user_with_a_cheaper_hash_is_refused_as_slowly_as_one_who_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"cheap:{BCRYPT}\ndear:{BCRYPT.replace('$04$', '$10$')}\n")
    login = read_htpasswd(path)

    def seconds(user: str) -> float:
        before = time.monotonic()
        assert not login(basic(user, "wrong"), HERE)
        return time.monotonic() - before

    cheap, dear, unknown = (min(seconds(user) for _ in range(6)) for user in ("cheap", "dear", "nobody"))
    assert cheap > 0.2 * dear  # its own hash takes a sixtieth
    assert unknown > 0.2 * dear


class Desk:
    """Stands for bcrypt: whoever is looked at stays until another one comes, or for `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self.patience, self.here, self.most = patience, 0, 0
        self.change = threading.Condition()

    def checkpw(self, _password: bytes, _hashed: bytes) -> bool:
        with self.change:
            self.here += 1
            self.most = max(self.most, self.here)
            self.change.notify_all()
            self.change.wait_for(lambda: self.most > 1, self.patience)
            self.here -= 1
        return False


@pytest.mark.parametrize(("other", "at_once", "patience"), [("192.0.2.1", 1, 0.1), ("192.0.2.2", 2, 20)])
def test_one_address_has_one_password_looked_at_and_two_have_two(
    login: Login, monkeypatch: pytest.MonkeyPatch, other: str, at_once: int, patience: float
) -> None:
    """Who guesses leaves room for others."""
    desk = Desk(patience)
    monkeypatch.setattr(bcrypt, "checkpw", desk.checkpw)
    guesses = [threading.Thread(target=login, args=(basic("ci", "guess"), address)) for address in ("192.0.2.1", other)]
    for guess in guesses:
        guess.start()
    for guess in guesses:
        guess.join(60)
    assert desk.most == at_once


@pytest.mark.exhaustive
def test_wrong_passwords_from_one_address_wait_for_each_other_and_for_no_other(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    path.write_text(f"ci:{BCRYPT.replace('$04$', '$10$')}\ncheap:{BCRYPT}\n")
    login = read_htpasswd(path)
    guesses = [
        threading.Thread(target=login, args=(basic("ci", f"guess {number}"), "192.0.2.1")) for number in range(12)
    ]
    for guess in guesses:
        guess.start()
    assert login(basic("cheap", "secret"), "192.0.2.2")
    assert sum(guess.is_alive() for guess in guesses) > 3
    for guess in guesses:
        guess.join(60)
