"""What happened, counted in plain integers: what is refused, dropped or restarted is counted and can be seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Metrics:
    """The counts of one server since it began. The names are the ones shown in the log at exit."""

    sessions: int = 0
    requests: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """By HTTP status, or 1013 where `--busy=close` turned a session away."""
    tls_failures: int = 0
    """TLS handshakes that failed, and connections to a TLS port that spoke something else."""
    accept_pauses: int = 0
    """Times that no connection was accepted for want of descriptors."""
    launch_failures: int = 0
    messages_in: int = 0
    messages_out: int = 0
    discarded_in: int = 0
    """Messages of clients to a program that had closed its stdin."""
    discarded_out: int = 0
    """Messages of programs to a client that had gone."""
    messages_lost: int = 0
    """Messages that a viewer was not given, each viewer's: it lagged too far, came back too late, or they never came here."""
    clients_timed_out: int = 0
    """Given up by a heartbeat, `--send-timeout` or `--body-timeout`."""
    protocol_errors: int = 0
    messages_too_long: int = 0
    """Of a program (`--maxline`) or a client (`--maxframesize`)."""
    killed: int = 0
    """Programs that did not end before KILL."""
    left_behind: int = 0
    """Processes of programs that KILL did not end: of another user, or waiting for the kernel."""
    daemons_left: int = 0
    """Processes that left the session of their program, and are not ended."""
    guard_restarts: int = 0
    spawn_server_restarts: int = 0
    program_restarts: int = 0
    """Times that the program of a channel has ended and was started again."""
    bus_repeats: int = 0
    """Messages that the bus brought again; they were dropped."""
    bus_lost: int = 0
    """Messages that the bus has lost, as far as that can be seen."""
    bus_renewals: int = 0
    """How often nobody knew what was lost."""
    bus_unconfirmed: int = 0
    """Messages of ours that were on their way when the broker went, or that it refused, and that nobody sends again."""
    bus_malformed: int = 0
    """Bodies that were not what they said to be."""
    bus_too_long: int = 0
    """Bodies with a message over `--maxline`, or that decompress to more."""
    bus_undecoded: int = 0
    """Bodies in a content encoding, or of an AMQP 1.0 type, that is not decoded."""
    spool_dropped: int = 0
    """Messages of ours for which the spool had no room."""
    broker_reconnects: int = 0
    broker_alarms: int = 0
    """How often the broker has said that it blocks publishers, being low on memory or disk space."""
    publish_timeouts: int = 0
    """Connections to the broker that were closed because a publish was not confirmed in time."""
    lookups_skipped: int = 0
    """Clients whose name was not looked up for `--reverselookup`, because too many lookups were under way."""
    log_lines_dropped: int = 0

    def counts(self) -> list[tuple[str, int]]:
        """Return every count with its name."""
        pairs: list[tuple[str, int]] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Counter):
                pairs += [(f"{item.name}_{status}", count) for status, count in sorted(value.items())]
            else:
                pairs.append((item.name, value))
        return pairs

    def nonzero(self) -> str:
        """Return the counts that are not zero as one line: `sessions=3 refused_404=1`."""
        return " ".join(f"{name}={count}" for name, count in self.counts() if count)
