"""Rivals' published formulas behind our seam: what each would do with the same fleet, seen through the same scraper.

Named by formula: they are re-implementations pinned by unit vectors, not the products.
"""
