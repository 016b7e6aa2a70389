using System.Text;
using Sidecar.Simulator;

namespace Sidecar.Fuzz;

/// <summary>Damage: what bit errors, torn writes, editors and enemies do to bytes.</summary>
internal static class Mutation
{
    private static readonly ulong[] Edges = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, int.MaxValue, 0x80000000, uint.MaxValue, long.MaxValue, 0x8000000000000000, ulong.MaxValue];

    internal static byte[] Bytes(this Dice dice, int length)
    {
        var bytes = new byte[length];
        for (var i = 0; i < length; i++)
        {
            bytes[i] = (byte)dice.Next();
        }

        return bytes;
    }

    /// <summary>A number that somebody forgot to think of, or any.</summary>
    internal static ulong Edge(this Dice dice) => dice.Unit() switch
    {
        < 0.4 => Edges[dice.Choose(0, Edges.Length - 1)],
        < 0.7 => dice.Next() >> dice.Choose(0, 63),
        _ => (ulong)dice.Choose(0, 70000),
    };

    /// <summary>The bytes with a few things done to them; sometimes with nothing.</summary>
    /// <param name="dice">Chance.</param>
    /// <param name="bytes">What is damaged; stays as it is.</param>
    /// <param name="words">Pieces that mean something to the reader, to be put in.</param>
    internal static byte[] Damage(this Dice dice, byte[] bytes, ReadOnlySpan<string> words = default)
    {
        var damaged = new List<byte>(bytes);
        for (var times = dice.Choose(0, 5); times > 0; times--)
        {
            var at = dice.Choose(0, damaged.Count);
            switch (dice.Choose(0, 7))
            {
                case 0 when at < damaged.Count:
                    damaged[at] = (byte)dice.Next();
                    break;
                case 1 when at < damaged.Count:
                    damaged[at] ^= (byte)(1 << dice.Choose(0, 7));
                    break;
                case 2:
                    damaged.RemoveRange(at, dice.Choose(0, Math.Min(40, damaged.Count - at)));
                    break;
                case 3:
                    damaged.InsertRange(at, dice.Bytes(dice.Choose(1, 20)));
                    break;
                case 4 when dice.Chance(0.3):
                    damaged.RemoveRange(at, damaged.Count - at);
                    break;
                case 5 when damaged.Count > 0:
                    var from = dice.Choose(0, damaged.Count - 1);
                    damaged.InsertRange(at, damaged.GetRange(from, dice.Choose(0, Math.Min(200, damaged.Count - from))));
                    break;
                case 6 when words.Length > 0:
                    damaged.InsertRange(at, Encoding.UTF8.GetBytes(words[dice.Choose(0, words.Length - 1)]));
                    break;
                case 7:
                    var number = BitConverter.GetBytes(dice.Edge());
                    for (var i = 0; i < dice.Pick(1, 2, 4, 8) && at + i < damaged.Count; i++)
                    {
                        damaged[at + i] = number[i];
                    }

                    break;
            }
        }

        return [.. damaged];
    }
}
