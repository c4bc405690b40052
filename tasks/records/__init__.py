"""What a run leaves behind: MLflow runs, dossiers, benchmark pages, processed requests. Never cached.
No stage is defined here.
"""
