"""The pages of a daily session and of its evaluation.

page               write_daily
evaluation_page    write_evaluation
"""
