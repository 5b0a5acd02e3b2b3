"""What people type and what is printed: one file a story, replayed by `test_transcripts.py`.

A file holds lines `$ COMMAND`, below each what was printed (errors too, in their order) and, where it is not 0, the
exit code as `[exit N]`. Everything happens in one folder that `desk.py` fills. To write them anew, and see in a diff
what changed for people:

    python -m tests.transcripts.record
"""
