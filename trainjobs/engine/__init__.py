"""DeepSpeed and what it holds: engines, moving averages, where ZeRO keeps what. The only room that imports deepspeed."""
