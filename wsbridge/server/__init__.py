"""A server: it owns listeners, a site and endpoints, opens them in order, and shuts them down.

    listeners  ->  HTTP connections  ->  site  ->  an endpoint's App  ->  sessions, event streams
                                                                      ->  CGI, static files, pages

A server is one process with one event loop. SIGTERM and SIGINT shut it down gracefully; a second signal forces the shutdown.
"""
