"""The HTTP door: it turns a request into one `Upscaler.upscale()` call and the answer into a response.

It refuses to know how a picture is upscaled: no pixels, no Ray, no torch. It is handed an `Upscaler`.
"""

from serve_app.api.app import create_api

__all__ = ["create_api"]
