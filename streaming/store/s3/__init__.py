"""S3, at Amazon's or behind any endpoint that speaks its API: `s3://bucket/prefix`, through boto3."""

from streaming.store.s3.options import S3Options
from streaming.store.s3.store import S3Store

__all__ = ['S3Options', 'S3Store']
