"""How often the verdict is right on made-up markets with and without an edge.

study                 StudySettings, study
simulated_research    run_market
quick_research        research
markets               draw_market
"""
