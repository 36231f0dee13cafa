"""The strategy `auto`: tries the candidates of the task's portfolio within the minutes of the budget, and selects one."""
