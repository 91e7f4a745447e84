"""Power study: how often the verdict is right on synthetic markets with and without an edge.

study                 StudySettings, study
simulated_research    run_market
quick_study           study_of, study_kinds
quick_research        research
quick_panel           draw_panel
markets               draw_market
"""
