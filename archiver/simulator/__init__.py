"""A stand-in for the Kore.ai platform that speaks HTTP only.

It imports nothing from the rest of archiver, so that a misreading in the client cannot hide in a shared model. What it
imitates, and where each fact is from, is said where it is imitated; "vendor" means Kore.ai's public documentation.

    platform    the Simulator: both servers, the sessions, the report
    settings    what the platform enforces
    script      what each session answers, and what its recordings are like
    calls       the script of a history: which calls the platform knows of
    made        the calls of a history that are made up
    history     the calls as the listings and the recordings API see them
    listings    the sessions history, the call details and the interaction details
    rows        a call as each of them shows it
    scenario    a made-up night of sessions for the demo
    api         the recordings API, and the simulator's own control endpoints
    media       the media origin: one recording over HTTP, with its faults
    urls        signed URLs
    tokens      what the platform accepts in the `auth` header
    limits      rate limits
    audio       recordings in telephone format
    flac        the same as FLAC
    tally       the report's counters
"""
