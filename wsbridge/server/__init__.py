"""The servers: each builds its parts, connects them, and shuts them down.

`base` contains the common parts; each shape of server has its own module.

    listeners, aiohttp, transports   ->  App  ->  an endpoint            ->  sessions
                                              ->  CGI, static files, page

A server is one process with one event loop. SIGTERM and SIGINT shut it down gracefully; a second signal forces the shutdown.
"""
