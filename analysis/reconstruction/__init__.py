"""What a network is for: cameras, depth maps and a coloured cloud of points, from pictures of one place.

| module | holds |
|---|---|
| `pictures` | which pictures, and how each lies in what the network sees |
| `views` | a network and pictures -> depth, confidence and cameras |
| `chunks` | how many pictures fit at once, and which go together |
| `joining` | chunks that share a picture, brought into one frame |
| `needs` | memory and time, before anything runs |
| `cloud` | depth and cameras -> coloured points, by confidence; PLY |
| `colmap` | cameras and points as a COLMAP model |
| `depth_files` | depth as 16-bit PNG and as NPZ |
| `previews` | pictures to look at |
| `differences` | one reconstruction against another |
| `folder` | all of it, written to a folder that appears complete or not at all |
| `viewer` | two reconstructions side by side in a browser |
"""
