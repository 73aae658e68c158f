"""Fetches a picture that a request names by URL, without lending the server's place in its network to anyone.

Whoever may name a URL may ask the server to knock at doors that only it can reach. So every hop is judged
anew: the URL's spelling, the host, each address that the host resolves to; and the connection goes to an
address that was judged, never to what a second look-up would say. It refuses to know HTTP's own door (`api`)
and what a picture is.
"""
