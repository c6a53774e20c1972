"""``python -m customerio_pipeline.management``: the admin process, as the receiver starts it."""

from customerio_pipeline.management.process import main

if __name__ == "__main__":
    main()
