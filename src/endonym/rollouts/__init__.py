"""Answers drawn to be learnt from: single replies, and episodes with tools."""
