"""Builds every part, hands each what it needs, and takes them down again: `serving` what is common, and a module for each shape.

    listeners, aiohttp, transports   ->  App  ->  a door                 ->  sessions
                                              ->  CGI, static files, page

One process, one loop. SIGTERM and SIGINT shut down in good order, a second one forces it.
"""
