"""The labeler that the method is named after: a multi-modal LLM, asked through the user's own Ollama (MeGU, arXiv 2602.17088, Eq 4-5).

`strategies` chooses the questions, `questions` words them, `server` connects, `asking` sends, `answers` parses, `answer_store` caches every
answer, `sanity` checks them, `labeler` combines it all. Nothing is asked twice: with all answers cached no server is needed.
"""
