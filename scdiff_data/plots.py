def plot_hvgs(path, **k):
    path.write_bytes(b"")
