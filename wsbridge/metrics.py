"""The counters of a server, as plain integers: each refusal, drop and restart is counted and can be seen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields


@dataclass(slots=True)
class Metrics:
    """The counters of one server since its start. The log shows them at exit, under these names."""

    sessions: int = 0
    requests: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    """Refused requests by HTTP status, and by 1013 for sessions that `--busy=close` refused."""
    tls_failures: int = 0
    """Failed TLS handshakes, and connections to a TLS port that sent something else."""
    accept_pauses: int = 0
    """Times that the server stopped accepting connections because it had no descriptors left."""
    launch_failures: int = 0
    messages_in: int = 0
    messages_out: int = 0
    discarded_in: int = 0
    """Messages from clients that the program did not accept, for example because it had closed its stdin."""
    discarded_out: int = 0
    """Messages from programs of bridge sessions after the client had disconnected, or while the server closed the session."""
    messages_lost: int = 0
    """Messages that subscribers did not receive, counted for each subscriber. It lagged too far, it reconnected too late, or the
    messages never reached this server."""
    clients_timed_out: int = 0
    """Clients closed by a heartbeat, `--send-timeout` or `--body-timeout`."""
    protocol_errors: int = 0
    messages_too_long: int = 0
    """Messages over the limit, from a program (`--maxline`) or a client (`--maxframesize`)."""
    killed: int = 0
    """Programs of bridge sessions that ended only after KILL."""
    left_behind: int = 0
    """Processes of programs that KILL did not end: processes of another user, or processes blocked in the kernel."""
    daemons_left: int = 0
    """Processes that left the POSIX session of their program; wsbridge does not end them."""
    guard_restarts: int = 0
    spawn_server_restarts: int = 0
    program_restarts: int = 0
    """Times that the program of a channel exited and was restarted."""
    bus_repeats: int = 0
    """Messages that the bus delivered again; they were dropped."""
    bus_lost: int = 0
    """Messages that the bus lost, as far as wsbridge can detect it."""
    bus_renewals: int = 0
    """Times that the bus lost an unknown number of messages."""
    bus_unconfirmed: int = 0
    """Messages from this process that the broker refused, or had not confirmed when the link failed, and that are not sent again."""
    bus_malformed: int = 0
    """Bodies whose content does not match their description."""
    bus_too_long: int = 0
    """Bodies that hold a message over `--maxline`, or that decompress to more."""
    bus_undecoded: int = 0
    """Bodies with a content encoding or an AMQP 1.0 type that wsbridge does not decode."""
    spool_dropped: int = 0
    """Messages from this process that the spool dropped because it was full."""
    broker_reconnects: int = 0
    broker_alarms: int = 0
    """Times that the broker reported, because memory or disk space is low, that it blocks publishers: counted for each channel."""
    publish_timeouts: int = 0
    """Connections to the broker that wsbridge closed because the broker did not confirm a publish in time."""
    lookups_skipped: int = 0
    """Clients whose name was not looked up for `--reverselookup`, because too many lookups were under way."""
    log_lines_dropped: int = 0

    def counts(self) -> list[tuple[str, int]]:
        """Return every counter with its name."""
        pairs: list[tuple[str, int]] = []
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Counter):
                pairs += [(f"{item.name}_{status}", count) for status, count in sorted(value.items())]
            else:
                pairs.append((item.name, value))
        return pairs

    def nonzero(self) -> str:
        """Return the counters that are not zero as one line: `sessions=3 refused_404=1`."""
        return " ".join(f"{name}={count}" for name, count in self.counts() if count)
