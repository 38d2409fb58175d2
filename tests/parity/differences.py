"""The cases in which Debian's websocketd 0.4.1 behaves differently: their tests run against wsbridge alone.

A test that both servers must pass takes `bridge`. A test in this list runs with wsbridge alone, whichever fixture it takes. Each row
describes a run of the test against 0.4.1.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Difference:
    case: int
    test: str
    websocketd: str
    """The behaviour of websocketd 0.4.1."""
    reason: str
    """The reason for the behaviour of wsbridge."""


UNRELEASED = "only its main branch does it"
IMPROVED = "a deliberate improvement"
OURS = "a deliberate improvement, with a new flag"

DIFFERENCES = (
    Difference(7, "test_unterminated_last_line_is_delivered", "drops it", IMPROVED),
    Difference(8, "test_invalid_utf8_is_replaced", "sends invalid bytes as text, and browsers break the connection", IMPROVED),
    Difference(10, "test_endless_line_ends_the_session", "collects the line until memory is exhausted", IMPROVED),
    Difference(10, "test_output_without_a_client_is_bounded", "collects the line while the program lives, now and then", IMPROVED),
    Difference(10, "test_maxline_is_the_longest_line", "has no limit, and no such flag", OURS),
    Difference(13, "test_large_message_comes_back_whole", "hangs: one loop serves both directions", UNRELEASED),
    Difference(15, "test_text_frame_in_binary_mode", "appends a newline", IMPROVED),
    Difference(20, "test_close_code_tells_the_exit_status", "ends TCP without a close frame", IMPROVED),
    Difference(23, "test_grandchildren_are_ended_too", "signals only its own child", IMPROVED),
    Difference(23, "test_group_of_its_own_is_ended_too", "signals only its own child", IMPROVED),
    Difference(24, "test_grandchild_cannot_hold_the_session", "waits for the end of stdout for ever", IMPROVED),
    Difference(25, "test_output_of_a_program_that_never_reads", "stops reading its output, and does not notice the disconnect", UNRELEASED),
    Difference(29, "test_not_executable_is_refused", "upgrades, fails to start it and drops the connection", IMPROVED),
    Difference(31, "test_shutdown_runs_the_ladder", "dies of the signal; a child that ignores EOF lives on", IMPROVED),
    Difference(31, "test_killed_bridge_leaves_no_process", "a child that ignores EOF lives on", IMPROVED),
    Difference(33, "test_client_that_reads_nothing_is_disconnected", "waits for ever", OURS),
    Difference(35, "test_long_stderr_line_is_logged", "loses it, and the child blocks on a full pipe", IMPROVED),
    Difference(36, "test_passstderr_wraps_both_streams", "has no such flag", UNRELEASED),
    Difference(36, "test_passstderr_excludes_binary", "has no such flag", UNRELEASED),
    Difference(42, "test_same_origin_behind_a_tls_proxy", "refuses every browser behind such a proxy", OURS),
    Difference(46, "test_inbound_message_limit", "has no limit", UNRELEASED),
    Difference(46, "test_inbound_message_without_limit", "has no such flag", UNRELEASED),
    Difference(48, "test_silent_client_is_dropped", "sends no pings", UNRELEASED),
    Difference(48, "test_responsive_client_is_kept", "sends no pings", UNRELEASED),
    Difference(50, "test_header_is_on_every_answer", "has it on the 101 only", IMPROVED),
    Difference(51, "test_redirport_keeps_the_path", "drops the path; panics at a Host without a port", IMPROVED),
    Difference(55, "test_stale_unix_socket_is_replaced", "has no such flag", UNRELEASED),
    Difference(56, "test_gateway_interface", "sets `websocketd-CGI/0.1`", "its main branch follows RFC 3875"),
    Difference(58, "test_cookies_are_joined", "joins them by a comma and a space", "RFC 6265, section 4.2.1"),
    Difference(60, "test_links_cannot_leave_the_directory", "follows them", UNRELEASED),
    Difference(61, "test_headers_cannot_imitate_others", "exports them", IMPROVED),
    Difference(63, "test_links_cannot_leave_the_static_directory", "follows them", UNRELEASED),
    Difference(63, "test_methods_of_a_file", "answers any method with the file", "RFC 9110, section 15.5.6"),
    Difference(63, "test_range_of_no_bytes", "answers 206 without a byte", "RFC 9110, section 14.1.2"),
    Difference(64, "test_console_is_read_only", "answers any method with the page", "RFC 9110, section 15.5.6"),
    Difference(64, "test_console_does_not_repeat_the_path", "writes it into the page unescaped", UNRELEASED),
    Difference(65, "test_source_of_a_cgi_script_is_never_served", "serves it", IMPROVED),
    Difference(65, "test_source_of_a_session_script_is_never_served", "serves it", IMPROVED),
    Difference(74, "test_upgrade_with_a_body", "drops the connection unanswered", "a proxy could treat the frames as a body"),
    Difference(74, "test_upgrade_of_http_1_0", "answers 101", "RFC 6455, section 4.2.1"),
    Difference(74, "test_early_frames_are_processed", "drops the connection unanswered", IMPROVED),
    Difference(75, "test_connection_in_two_lines", "reads the first line only: 404", IMPROVED),
    Difference(76, "test_variable_has_a_limit", "upgrades, fails to start the program and drops the connection", IMPROVED),
    Difference(77, "test_slow_program_keeps_its_client", "sends no pings; its main branch disconnects the client", IMPROVED),
    Difference(79, "test_limit_of_descriptors", "gives the child the raised limit", UNRELEASED),
    Difference(80, "test_ordinary_end_is_no_error", "logs `file already closed` as ERROR, now and then", IMPROVED),
    Difference(82, "test_empty_origin_entry_matches_nothing", "panics at it: the connection is closed unanswered", IMPROVED),
    Difference(83, "test_nul_in_the_path_is_refused", "upgrades, fails to start the program and drops the connection", IMPROVED),
    Difference(85, "test_log_lines_cannot_be_forged", "logs them raw", IMPROVED),
    Difference(87, "test_incomplete_request_times_out", "waits for ever", UNRELEASED),
    Difference(89, "test_loss_of_the_logs_reader", "dies of SIGPIPE", IMPROVED),
    Difference(90, "test_ladder_after_a_long_message", "has no limit", UNRELEASED),
)
