"""The static pages: the gallery of results and the atlas of features.

Both share one style sheet (`static/style.css`) and one template environment (`rendering.py`).
"""
