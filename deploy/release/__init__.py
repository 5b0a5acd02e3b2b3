"""Making a release: keys, wheel, bundle, bill of materials, provenance; run by `deploy/release.sh`, `deploy/bundle.sh`.

It is no part of the product: nothing here is installed. What a site verifies with is `deploy/install/`.
"""
