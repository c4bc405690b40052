-- Prefect and MLflow each have a database of their own.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
