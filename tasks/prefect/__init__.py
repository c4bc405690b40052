"""What only Prefect needs: automations, slots, events, forms, the temporary server, and the care of flow runs.
No stage is here.
"""
