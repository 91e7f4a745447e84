"""Labels: realised outcomes of positions. The one package that reads the future, unreachable from serving.

triple_barrier    TripleBarrier
forward_return    ForwardReturn
explosion         Explosion
expansion         RangeExpansion
mean_reached      MeanReached
realised_range    realised_range, mean_met, path_targets
events            CusumEvents, ClockEvents
meta              pays
stored            label_of_card
"""
