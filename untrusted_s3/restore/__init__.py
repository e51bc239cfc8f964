"""The key holder's side: what a folder holds, and its files, straight from the bucket (docs/python-api.md).

It only ever reads from the store.
"""
