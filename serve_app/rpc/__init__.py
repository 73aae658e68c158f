"""The gRPC door. It is handed an `Upscaler`, and refuses to know Ray, whose proxy listens for it."""
