"""Grading what students hand in: their code runs in a child process that never sees an answer.

    submission.py   what was handed in: files, cells, the function of each exercise and what it needs
    sandbox.py      the limits of the child and how it starts; each measure applied is reported
    worker.py       the child: receives arguments, calls the student's function, sends back what it returned
    wire.py         the messages between the two, without pickle
    child.py        the parent's side: one child, and each function of it as an answer for the judge
    secret.py       what the teacher keeps: seeds and cases that no student sees
    marks.py        the one result model
    grader.py       one submission: everything above in order
    batch.py        a class at once: parallel, stored one by one, resumed after a kill
    reports.py      the marks as text, JSON, JUnit, GitHub, GitLab, Gradescope, CSV

THREATS.md says what is promised against a hostile submission, and what is not.
"""
