"""Permits, acceptances, run orders and revocation lists."""
