"""How long a registry and a disk are waited for."""

from regwrap.core.location import Timeouts


def test_a_busy_disk_has_ten_times_the_patience_of_a_network() -> None:
    assert Timeouts(stall=7).disk_stall == 70
    assert Timeouts(stall=0.5).disk_stall == 5
