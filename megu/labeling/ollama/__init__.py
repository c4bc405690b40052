"""The labeler the method is named for: a multi-modal LLM, asked through the user's own Ollama (MeGU, arXiv 2602.17088, Eq 4-5).

`strategies` says what is asked, `questions` how; `server` knows the server, `asking` asks, `answers` reads, `answer_store` keeps every answer,
`sanity` judges them, `labeler` puts it together. Nothing is asked twice: with all answers kept no server is needed.
"""
