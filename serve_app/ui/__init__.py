"""The web page: one more door, made with Gradio.

It refuses to know how pictures are upscaled and where: it is handed a `backend.Backend`.
"""
